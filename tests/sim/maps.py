"""Small OpenDRIVE texts, written by hand, for the tests."""


def lane(lane_id, width=3.5, kind="driving", link="", mark="", more=""):
    body = f'<width sOffset="0" a="{width}" b="0" c="0" d="0"/>' if lane_id else ""
    links = f"<link>{link}</link>" if link else ""
    return f'<lane id="{lane_id}" type="{kind}" level="false">{links}{body}{mark}{more}</lane>'


def section(left=(), right=(), s=0.0, centre=""):
    left, right = "".join(left), "".join(right)
    sides = (f"<left>{left}</left>" if left else "", f"<right>{right}</right>" if right else "")
    return (
        f'<laneSection s="{s}">{sides[0]}<center>{lane(0, kind="none", mark=centre)}</center>{sides[1]}</laneSection>'
    )


def geometry(shape, length, s=0.0, x=0.0, y=0.0, hdg=0.0):
    return f'<geometry s="{s}" x="{x}" y="{y}" hdg="{hdg}" length="{length}">{shape}</geometry>'


def road(plan, length, sections=None, *, id="1", junction="-1", link="", rule="RHT", profiles="", offset="", more=""):
    sections = sections or section([lane(1)], [lane(-1)])
    return (
        f'<road name="r" length="{length}" id="{id}" junction="{junction}" rule="{rule}"><link>{link}</link>'
        f"<planView>{plan}</planView>{profiles}<lanes>{offset}{sections}</lanes>{more}</road>"
    )


def drive(*parts):
    return f'<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="4"/>{"".join(parts)}</OpenDRIVE>'


def one(shape="<line/>", length=50.0, **more):
    return drive(road(geometry(shape, length, hdg=more.pop("hdg", 0.0)), length, **more))
