"""What the weather and the hour do to the light."""

from __future__ import annotations

import math
from typing import NamedTuple

from drivetrain.sim.protocol.structs import Weather

Color = tuple[float, float, float]  # 1 is white


class Light(NamedTuple):
    """All that `shade.py` needs to know of the weather; a plain tuple, so that compiled code takes it."""

    to_sun: tuple[float, float, float]
    sun: Color  # what a surface that faces it is given
    sky: Color  # what is given from above, and below from the ground
    ground: Color
    zenith: Color
    horizon: Color
    fog: Color
    fog_per_m: float
    fog_start_m: float
    clouds: float  # 0 to 1
    wet: float  # of the ground, 0 to 1
    puddles: float
    rain: float
    night: float  # 0 by day, 1 where lamps are all the light there is


def mix(a: Color, b: Color, share: float) -> Color:
    return tuple(x + (y - x) * share for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def scaled(a: Color, by: float) -> Color:
    return (a[0] * by, a[1] * by, a[2] * by)


def between(value: float, low: float, high: float) -> float:
    """0 below low, 1 above high, and smoothly between."""
    t = min(1.0, max(0.0, (value - low) / (high - low)))
    return t * t * (3 - 2 * t)


def light_of(weather: Weather) -> Light:
    altitude, azimuth = math.radians(weather.sun_altitude_angle), math.radians(weather.sun_azimuth_angle)
    height = weather.sun_altitude_angle
    cloudy = min(1.0, max(0.0, weather.cloudiness / 100))
    day, high_day = between(height, -8.0, 12.0), between(height, 0.0, 35.0)
    low_sun = between(height, -6.0, 1.0) * (1 - between(height, 6.0, 25.0))
    zenith = mix((0.012, 0.018, 0.045), mix((0.22, 0.30, 0.52), (0.25, 0.46, 0.80), high_day), day)
    horizon = mix((0.03, 0.04, 0.075), mix((0.66, 0.58, 0.56), (0.70, 0.80, 0.92), high_day), day)
    horizon = mix(horizon, (0.98, 0.55, 0.30), 0.75 * low_sun * (1 - 0.7 * cloudy))
    grey = 0.07 + 0.61 * day
    zenith = mix(zenith, (grey * 0.9, grey * 0.93, grey), 0.85 * cloudy)
    horizon = mix(horizon, (grey, grey, grey * 1.02), 0.85 * cloudy)
    strength = between(height, -1.0, 14.0) * (1 - 0.85 * cloudy)
    sun = scaled(mix((1.0, 0.55, 0.28), (1.0, 0.95, 0.86), between(height, 2.0, 30.0)), 0.72 * strength)
    sky = mix(scaled(mix(zenith, horizon, 0.5), 0.80), (0.62, 0.64, 0.68), 0.35 * day)
    sky = tuple(max(value, 0.09) for value in sky)  # type: ignore[assignment]
    density = min(1.0, max(0.0, weather.fog_density / 100))
    fog = mix(horizon, (grey * 1.05, grey * 1.05, grey * 1.06), 0.6)
    rain = min(1.0, max(0.0, weather.precipitation / 100))
    return Light(
        to_sun=(math.cos(altitude) * math.cos(azimuth), math.cos(altitude) * math.sin(azimuth), math.sin(altitude)),
        sun=sun,
        sky=sky,
        ground=scaled(sky, 0.55),
        zenith=zenith,
        horizon=horizon,
        fog=fog,
        fog_per_m=0.06 * density**1.5 + 0.0012 + 0.004 * rain,
        fog_start_m=max(0.0, weather.fog_distance) * density,
        clouds=cloudy,
        wet=min(1.0, max(0.0, max(weather.wetness, 0.8 * weather.precipitation) / 100)),
        puddles=min(1.0, max(0.0, weather.precipitation_deposits / 100)),
        rain=rain,
        night=1 - between(height, -6.0, 6.0),
    )
