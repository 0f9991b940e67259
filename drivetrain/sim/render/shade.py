"""A colour for each pixel: what the surface is painted with, how the sun, the sky and lamps fall on it, and the air between."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.render.mesh import Pattern
from drivetrain.sim.squares import OFTEN

PLAIN, ASPHALT, GRASS, PAVING, WALL, LEAVES, PAINT, SHINY, GLASS, LAMP, BRICK = (int(p) for p in Pattern)
GRAIN = 256  # side of the table of noise
FLOOR_M, WINDOW_M = 3.2, 2.5
BEAM_M = 28.0
STREET_LAMP = (1.0, 0.82, 0.56)


@functools.lru_cache(maxsize=1)
def grain() -> NDArray[np.float32]:
    """[GRAIN, GRAIN] noise of four octaves that repeats at its edges; 0 on average, some 1 wide."""
    draw = np.random.default_rng(20240229)
    total = np.zeros((GRAIN, GRAIN))
    for octave, strength in ((4, 1.0), (16, 0.7), (64, 0.6), (256, 0.9)):
        coarse = draw.normal(size=(octave, octave))
        at = np.arange(GRAIN) * octave / GRAIN
        low = at.astype(int)
        part = at - low
        part = part * part * (3 - 2 * part)
        rows = coarse[low] * (1 - part)[:, None] + coarse[(low + 1) % octave] * part[:, None]
        total += strength * (rows[:, low] * (1 - part) + rows[:, (low + 1) % octave] * part)
    return (total / total.std()).astype(np.float32)


@OFTEN
def noise(table, x, y):  # type: ignore[no-untyped-def]
    return table[int(np.floor(y)) & (GRAIN - 1), int(np.floor(x)) & (GRAIN - 1)]


@OFTEN
def smooth(table, x, y):  # type: ignore[no-untyped-def]
    """The same between the table's values, for what is seen large."""
    fx, fy = np.floor(x), np.floor(y)
    i, j = int(fy) & (GRAIN - 1), int(fx) & (GRAIN - 1)
    k, m = (i + 1) & (GRAIN - 1), (j + 1) & (GRAIN - 1)
    u, v = x - fx, y - fy
    top = table[i, j] + (table[i, m] - table[i, j]) * u
    low = table[k, j] + (table[k, m] - table[k, j]) * u
    return top + (low - top) * v


@OFTEN
def lit(high, axes, origin, metres, x, y, z):  # type: ignore[no-untyped-def]
    """1 where the sun reaches a point, 0 where something stands before it."""
    column = int(np.floor((x * axes[0, 0] + y * axes[0, 1] + z * axes[0, 2] - origin[0]) / metres))
    row = int(np.floor((x * axes[1, 0] + y * axes[1, 1] + z * axes[1, 2] - origin[1]) / metres))
    if column < 0 or row < 0 or row >= high.shape[0] or column >= high.shape[1]:
        return 1.0
    towards = x * axes[2, 0] + y * axes[2, 1] + z * axes[2, 2]
    return 0.0 if high[row, column] > towards + 0.35 else 1.0


@OFTEN
def sky(light, table, x, y, z, drift):  # type: ignore[no-untyped-def]
    """The colour in a direction of length 1."""
    up = max(z, 0.0)
    share = 1.0 - (1.0 - up) ** 3
    r = light.horizon[0] + (light.zenith[0] - light.horizon[0]) * share
    g = light.horizon[1] + (light.zenith[1] - light.horizon[1]) * share
    b = light.horizon[2] + (light.zenith[2] - light.horizon[2]) * share
    towards = x * light.to_sun[0] + y * light.to_sun[1] + z * light.to_sun[2]
    if towards > 0.9:
        halo = ((towards - 0.9) * 10) ** 6 * (1 - 0.9 * light.clouds)
        disc = 1.0 if towards > 0.9995 and light.clouds < 0.7 else 0.0
        shine = 0.35 * halo + disc
        r, g, b = r + shine * (light.sun[0] + 0.2 * disc), g + shine * light.sun[1], b + shine * light.sun[2]
    if z > 0.03 and light.clouds > 0.05:
        scale = 14.0 / (z + 0.08)
        thick = smooth(table, x * scale + drift, y * scale) * 0.5 + 2.2 * light.clouds - 1.2
        if thick > 0:
            cover = min(1.0, thick) * min(1.0, (z - 0.03) * 8) * 0.7
            bright = 0.12 + 0.9 * (1 - light.night) * (1 - 0.35 * light.clouds)
            r, g, b = r + (bright - r) * cover, g + (bright - g) * cover, b + (bright * 1.02 - b) * cover
    return r, g, b


@OFTEN
def painted(table, pattern, row, r, g, b, x, y, z, nz, blur, night):  # type: ignore[no-untyped-def]
    """The surface's own colour at a point, and how much it shines by itself. blur: metres that a pixel covers there."""
    glow = 0.0
    fine = 1.0 / (1.0 + blur * 12.0)
    coarse = 1.0 / (1.0 + blur * 1.5)
    if pattern == ASPHALT:
        k = 1.0 + 0.10 * fine * noise(table, x * 14, y * 14) + 0.055 * coarse * noise(table, x * 1.3, y * 1.3)
        return r * k, g * k, b * k, glow
    if pattern == GRASS:
        k = 1.0 + 0.16 * fine * noise(table, x * 9, y * 9) + 0.10 * noise(table, x * 0.35, y * 0.35)
        dry = 0.06 * noise(table, y * 0.11 + 40, x * 0.11)
        return (r + dry) * k, (g + dry * 0.4) * k, b * k, glow
    if pattern == PAVING:
        k = 1.0 + 0.05 * coarse * noise(table, x * 3, y * 3)
        if x - np.floor(x) < 0.06 or y - np.floor(y) < 0.06:
            k -= 0.16 * fine
        return r * k, g * k, b * k, glow
    if pattern == PAINT:
        k = 1.0 + 0.06 * fine * noise(table, x * 11, y * 11) - 0.03 * abs(noise(table, x * 1.1, y * 1.1))
        return r * k, g * k, b * k, glow
    if pattern == LEAVES:
        k = 1.0 + 0.26 * coarse * noise(table, x * 5 + z * 3, y * 5 + z * 4) + 0.12 * nz
        return r * k, g * k, b * k, glow
    if pattern == BRICK:
        k = 1.0 + 0.07 * fine * noise(table, x * 7, y * 7 + z * 5)
        rows = z * 4 - np.floor(z * 4)
        if rows < 0.18:
            k -= 0.14 * fine
        return r * k, g * k, b * k, glow
    if pattern == WALL and abs(nz) < 0.5:
        along = x * row[0] + y * row[1] - row[2]
        high = z - row[3]
        columns = max(1.0, np.floor(row[4] / WINDOW_M))
        floors = max(1.0, np.floor(row[5] / FLOOR_M))
        column = along / row[4] * columns
        floor = high / FLOOR_M
        i, j = np.floor(column), np.floor(floor)
        u, v = column - i, floor - j
        k = 1.0 + 0.05 * coarse * noise(table, along * 3, high * 3)
        if j >= floors:
            return r * k * 0.94, g * k * 0.94, b * k * 0.94, glow
        glass = min(1.0, max(0.0, 1.4 - blur * 1.1))
        inside = 0.22 < u < 0.78 and 0.30 < v < 0.80
        if j == 0.0:
            door = (int(i) * 7 + int(columns)) % 4 == 1
            inside = (0.25 < u < 0.75 and v < 0.72) if door else (0.12 < u < 0.88 and 0.22 < v < 0.76)
            if door and inside:
                s = 0.42 * glass + (1 - glass) * 0.75
                return r * s, g * s * 0.9, b * s * 0.85, glow
        if inside:
            home = noise(table, i * 37.3 + row[2] * 11.7 + 5, j * 53.9 + row[3] * 7.1 + 9)
            if night > 0.3 and home > 0.1:
                warm = glass * night
                return (
                    r * (1 - glass) * 0.8 + 0.98 * glass, g * (1 - glass) * 0.8 + 0.82 * glass,
                    b * (1 - glass) * 0.8 + 0.52 * glass, 0.85 * warm,
                )  # fmt: skip
            pane = 0.26 + 0.04 * home
            return (
                r * (1 - glass) * 0.82 + pane * 0.80 * glass, g * (1 - glass) * 0.82 + pane * 0.95 * glass,
                b * (1 - glass) * 0.84 + pane * 1.15 * glass, glow,
            )  # fmt: skip
        if 0.18 < u < 0.82 and 0.25 < v < 0.84 and j > 0:
            k *= 1.0 + 0.10 * glass
        average = 1.0 - 0.2 * (1 - glass)
        return r * k * average, g * k * average, b * k * average, glow
    return r, g, b, glow


@OFTEN
def shade(  # type: ignore[no-untyped-def]
    near, ids, eye, focal, light, table, frame,
    still_color, still_pattern, still_normal, still_wall,
    live_color, live_pattern, live_normal, first_live,
    high, axes, origin, metres, live_high, live_origin, live_metres,
    lamp_map, lamp_origin, beams, out, first_row, row_step,
):  # fmt: skip
    """Writes blue, green, red and 255 to some rows of out [H, W, 4]."""
    height, width = near.shape
    cx, cy = width / 2.0, height / 2.0
    sunny = light.sun[0] > 0.01
    drift = frame * 0.02
    no_wall = np.zeros(6, np.float32)
    for row in range(first_row, height, row_step):
        dv = (row + 0.5 - cy) / focal
        for column in range(width):
            du = (column + 0.5 - cx) / focal
            dx = eye[1, 0] + du * eye[2, 0] + dv * eye[3, 0]
            dy = eye[1, 1] + du * eye[2, 1] + dv * eye[3, 1]
            dz = eye[1, 2] + du * eye[2, 2] + dv * eye[3, 2]
            stretch = np.sqrt(dx * dx + dy * dy + dz * dz)
            closeness = near[row, column]
            if closeness <= 0.0:
                r, g, b = sky(light, table, dx / stretch, dy / stretch, dz / stretch, drift)
                haze = max(0.0, 1.0 - max(dz / stretch, 0.0) * 6) * min(1.0, (light.fog_per_m - 0.0012) * 60)
                r, g, b = r + (light.fog[0] - r) * haze, g + (light.fog[1] - g) * haze, b + (light.fog[2] - b) * haze
            else:
                depth = 1.0 / closeness
                x, y, z = eye[0, 0] + dx * depth, eye[0, 1] + dy * depth, eye[0, 2] + dz * depth
                t = ids[row, column]
                if t < first_live:
                    pattern = still_pattern[t]
                    r, g, b = still_color[t, 0] / 255.0, still_color[t, 1] / 255.0, still_color[t, 2] / 255.0
                    nx, ny, nz = still_normal[t, 0], still_normal[t, 1], still_normal[t, 2]
                    wall = still_wall[t]
                else:
                    t -= first_live
                    pattern = live_pattern[t]
                    r, g, b = live_color[t, 0] / 255.0, live_color[t, 1] / 255.0, live_color[t, 2] / 255.0
                    nx, ny, nz = live_normal[t, 0], live_normal[t, 1], live_normal[t, 2]
                    wall = no_wall
                far = depth * stretch
                facing = abs(nx * dx + ny * dy + nz * dz) / stretch
                blur = depth / focal / max(facing, 0.08)
                r, g, b, glow = painted(table, pattern, wall, r, g, b, x, y, z, nz, blur, light.night)
                if pattern == LAMP:
                    glow = light.night if ids[row, column] < first_live else 1.0
                own_r, own_g, own_b = r, g, b
                if nz > 0.7 and light.wet > 0.02:
                    dark = 1.0 - 0.4 * light.wet
                    r, g, b = r * dark, g * dark, b * dark
                sun = max(0.0, nx * light.to_sun[0] + ny * light.to_sun[1] + nz * light.to_sun[2])
                if pattern == LEAVES:
                    sun = 0.3 + 0.55 * sun
                if sunny and sun > 0.0:
                    reached = lit(high, axes, origin, metres, x + nx * 0.1, y + ny * 0.1, z + nz * 0.1)
                    if reached > 0:
                        reached = lit(
                            live_high, axes, live_origin, live_metres, x + nx * 0.1, y + ny * 0.1, z + nz * 0.1
                        )
                    sun *= reached
                else:
                    sun = 0.0
                up = 0.5 + 0.5 * nz
                er = light.ground[0] + (light.sky[0] - light.ground[0]) * up + light.sun[0] * sun
                eg = light.ground[1] + (light.sky[1] - light.ground[1]) * up + light.sun[1] * sun
                eb = light.ground[2] + (light.sky[2] - light.ground[2]) * up + light.sun[2] * sun
                if light.night > 0.05:
                    i = int(np.floor(y - lamp_origin[1]))
                    j = int(np.floor(x - lamp_origin[0]))
                    if 0 <= i < lamp_map.shape[0] and 0 <= j < lamp_map.shape[1] and z - lamp_origin[2] < 60:
                        shine = lamp_map[i, j] * light.night * (0.45 + 0.4 * max(nz, 0.0))
                        er += shine * STREET_LAMP[0]
                        eg += shine * STREET_LAMP[1]
                        eb += shine * STREET_LAMP[2]
                    for k in range(len(beams)):
                        bx, by, bz = x - beams[k, 0], y - beams[k, 1], z - beams[k, 2]
                        ahead = bx * beams[k, 3] + by * beams[k, 4]
                        if 0.2 < ahead < BEAM_M * 1.6:
                            aside = -bx * beams[k, 4] + by * beams[k, 3]
                            wide = 1.0 + 0.45 * ahead
                            if abs(aside) < wide and bz < 0.6 + 0.04 * ahead:
                                fade = (
                                    (1 - (aside / wide) ** 2) * math.exp(-ahead / (0.45 * BEAM_M)) * light.night * 0.9
                                )
                                er += fade
                                eg += fade * 0.97
                                eb += fade * 0.85
                sr, sg, sb = 0.0, 0.0, 0.0
                mirror = 0.0
                if pattern == SHINY:
                    mirror = 0.10 + 0.35 * (1 - facing) ** 3
                elif pattern == GLASS:
                    mirror = 0.35 + 0.45 * (1 - facing) ** 2
                elif nz > 0.7 and light.wet > 0.02 and pattern in (ASPHALT, PAINT, PAVING):
                    pool = smooth(table, x * 0.7 + 11, y * 0.7 + 3)
                    flat = 0.12 + 0.5 * min(1.0, max(0.0, 3 * (pool - 1.4 + 2.4 * light.puddles)))
                    mirror = light.wet * (flat + 0.5 * (1 - facing) ** 3)
                if mirror > 0:
                    k = 2 * (dx * nx + dy * ny + dz * nz)
                    mx, my, mz = (dx - k * nx) / stretch, (dy - k * ny) / stretch, (dz - k * nz) / stretch
                    if mz > -0.05:
                        sr, sg, sb = sky(light, table, mx, my, max(mz, 0.02), drift)
                    else:
                        sr, sg, sb = light.ground[0] * 0.5, light.ground[1] * 0.5, light.ground[2] * 0.5
                    mirror = min(mirror, 0.85)
                r = r * er * (1 - mirror) + sr * mirror
                g = g * eg * (1 - mirror) + sg * mirror
                b = b * eb * (1 - mirror) + sb * mirror
                if glow > 0:
                    r, g, b = r + (own_r - r) * glow, g + (own_g - g) * glow, b + (own_b - b) * glow
                thick = max(0.0, far - light.fog_start_m) * light.fog_per_m
                air = 1.0 - 1.0 / (1.0 + thick * (1.0 + thick * (0.5 + thick / 6.0)))  # all but 1 - exp(-thick)
                r, g, b = r + (light.fog[0] - r) * air, g + (light.fog[1] - g) * air, b + (light.fog[2] - b) * air
            if light.rain > 0.02:
                streak = noise(table, column * 1.7 + frame * 71, (row + frame * 47) * 0.06 + column * 3.1)
                if streak > 2.6 - 1.1 * light.rain:
                    r, g, b = r + (0.75 - r) * 0.16, g + (0.77 - g) * 0.16, b + (0.8 - b) * 0.16
            out[row, column, 0] = int(min(255.0, max(0.0, b * 255.0)))
            out[row, column, 1] = int(min(255.0, max(0.0, g * 255.0)))
            out[row, column, 2] = int(min(255.0, max(0.0, r * 255.0)))
            out[row, column, 3] = 255
