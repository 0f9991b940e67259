"""Roads: an OpenDRIVE text, read and understood.

    from drivetrain.sim.road.map import load
    roads = load(xodr_text)
    here = roads.nearest_lane(x_m, y_m)

Two frames. OpenDRIVE's, in which the file is written: x east, y north, z up, angles counter-clockwise; s along a road, t
to its left. CARLA's, in which all that leaves `RoadMap` is given: x the same, y = -y, so that angles grow clockwise seen
from above and a driver's right is at heading + 90 degrees. `lanes.py` is the one place where the one becomes the other.
"""
