"""Towns of our own: OpenDRIVE texts and what stands beside the roads, made by code when they are asked for.

    from drivetrain.sim.towns.catalog import names, town
    place = town("grid")          # or roundabout, highway, rural, Random-7, ...
    place.xodr, place.scenery

Each is a function of its name, to the byte.
"""
