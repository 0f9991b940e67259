"""Pictures, point clouds and radar echoes of the world, by plain code on the processor.

    renderer = Render()                        what `server.Server(renderer=...)` takes
    renderer.render(scene, view)               one sensor's message

`mesh.py`, `place.py` and `shapes.py` make triangles of maps, buildings, cars and people; `raster.py` says which of them
is behind each pixel, and how far; `shade.py` gives it a colour; `rays.py` follows single rays. `cameras.py`,
`lidar.py` and `radar.py` turn that into what CARLA's sensors send. The loops over triangles, pixels and rays are
compiled by numba, once, and kept on disk.
"""
