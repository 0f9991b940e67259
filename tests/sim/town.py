"""A fixed little place for tests: one straight road of four lanes along x, 400 m long, with a traffic light at 150 m.

python tests/sim/town.py [--port P] [--renderer]     serves it, and says on stdout where
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from drivetrain.sim.errors import SimError
from drivetrain.sim.lights import LightPlace
from drivetrain.sim.protocol.binary import image
from drivetrain.sim.protocol.structs import BoundingBox, GenerationParameters, Rotation, Transform, Vector3D
from drivetrain.sim.road.map import load
from drivetrain.sim.server import Config, Server

LENGTH_M = 400
LANES = "".join(
    f"""<lane id="{n}" type="driving" level="false"><link/><width sOffset="0" a="3.5" b="0" c="0" d="0"/>
    <roadMark sOffset="0" type="solid" weight="standard" color="white" width="0.12" laneChange="none"/></lane>"""
    for n in (-1, -2)
)
XODR = f"""<?xml version="1.0" standalone="yes"?>
<OpenDRIVE>
<header revMajor="1" revMinor="4" name="Line" version="1" date="2026-01-01" north="100" south="-100" east="400" west="0">
<geoReference><![CDATA[+proj=tmerc +lat_0=48.5 +lon_0=9.25 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m]]></geoReference>
</header>
<road name="Main" length="{LENGTH_M}" id="1" junction="-1"><link/>
<type s="0" type="town"><speed max="50" unit="km/h"/></type>
<planView><geometry s="0" x="0" y="0" hdg="0" length="{LENGTH_M}"><line/></geometry></planView>
<elevationProfile><elevation s="0" a="0" b="0" c="0" d="0"/></elevationProfile><lateralProfile/>
<lanes><laneSection s="0"><center><lane id="0" type="none" level="false"><link/>
<roadMark sOffset="0" type="broken" weight="standard" color="white" width="0.12" laneChange="both"/></lane></center>
<right>{LANES}</right></laneSection></lanes>
<signals><signal id="77" name="light" s="150" t="-8" dynamic="yes" orientation="+" zOffset="4" type="1000001"
 country="OpenDRIVE" subtype="-1" value="-1" height="1" width="0.5"><validity fromLane="-2" toLane="-1"/></signal></signals>
</road>
</OpenDRIVE>
"""


class Line:
    """The map above."""

    def __init__(self, name: str = "Line", xodr: str = XODR):
        self.name, self.xodr = name, xodr
        self.roads, self.scenery = load(xodr), ()

    def spawn_points(self) -> list[Transform]:
        return [Transform(Vector3D(10.0 + 12 * i, y, 0.3), Rotation()) for i in range(20) for y in (1.75, 5.25)]

    def heights_m(self, points, below_m):
        return np.zeros(len(points))

    def lights(self) -> list[LightPlace]:
        if 'id="77"' not in self.xodr:
            return []
        box = BoundingBox(Vector3D(150.0, 8.0, 4.0), Vector3D(0.2, 0.2, 0.5))
        trigger = BoundingBox(Vector3D(10.0, 4.5, 0.0), Vector3D(2.0, 3.5, 2.0))  # x 138 to 142, both lanes
        return [
            LightPlace(
                "77", Transform(Vector3D(150.0, 8.0, 0.0), Rotation(0.0, 180.0, 0.0)), trigger=trigger, boxes=(box,)
            )
        ]


class Lines:
    """Two places of one shape, and whatever a client sends."""

    def names(self) -> list[str]:
        return ["Line", "Line2"]

    def load(self, name: str) -> Line:
        if name not in self.names():
            raise SimError(f"there is no map {name!r}; there are {', '.join(self.names())}")
        return Line(name)

    def from_xodr(self, xodr: str, parameters: GenerationParameters) -> Line:
        if "<OpenDRIVE" not in xodr:
            raise ValueError("got a text without the element OpenDRIVE, expected an OpenDRIVE map")
        return Line("OpenDriveMap", xodr)


class Blank:
    """Serves cameras with pictures of one colour, so that the wire can be measured without a picture's cost."""

    def check(self, blueprint, settings):
        if blueprint != "sensor.camera.rgb":
            raise SimError(f"{blueprint} is not drawn by this renderer")

    def render(self, scene, view):
        width, height = int(view.settings["image_size_x"]), int(view.settings["image_size_y"])
        return image(width, height, float(view.settings["fov"]), bytes((30, 20, 10, 255)) * (width * height))


if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1]) if "--port" in sys.argv else 0
    with Server(Lines(), Config(port=port), renderer=Blank() if "--renderer" in sys.argv else None) as server:
        server.begin()
        print(server.port, server.stream_port, flush=True)
        server.serve()
