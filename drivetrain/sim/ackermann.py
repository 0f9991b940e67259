"""Ackermann control: a wish in radians and metres per second, made pedals and steering by two PID loops, as CARLA does.

The first asks for a change of acceleration from the error in speed, the second for a change of pedal from the error in
acceleration. One pedal runs from -1 (brake) to 1 (throttle).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from drivetrain.sim.protocol.structs import AckermannControl, AckermannSettings, VehicleControl

MOST_ACCEL_MPS2, MOST_BRAKE_MPS2 = 3.0, 8.0  # where the client asks for no limit
STANDING_MPS = 0.1


@dataclass
class Pid:
    total: float = 0.0
    last: float = 0.0

    def step(self, error: float, gains: tuple[float, float, float], dt_s: float) -> float:
        self.total += error * dt_s
        slope, self.last = (error - self.last) / dt_s, error
        return gains[0] * error + gains[1] * self.total + gains[2] * slope


@dataclass
class Ackermann:
    wish: AckermannControl | None = None  # None: the vehicle follows ordinary controls
    settings: AckermannSettings = field(default_factory=AckermannSettings)
    speed: Pid = field(default_factory=Pid)
    accel: Pid = field(default_factory=Pid)
    accel_mps2: float = 0.0
    pedal: float = 0.0
    steer_rad: float = 0.0

    def start(self, wish: AckermannControl) -> None:
        if self.wish is None:
            self.speed, self.accel, self.accel_mps2, self.pedal = Pid(), Pid(), 0.0, 0.0
        self.wish = wish

    def control(self, speed_mps: float, accel_mps2: float, max_steer_rad: float, dt_s: float) -> VehicleControl:
        assert self.wish is not None
        wish, s = self.wish, self.settings
        change = wish.steer - self.steer_rad
        if wish.steer_speed > 0:
            change = max(-wish.steer_speed * dt_s, min(wish.steer_speed * dt_s, change))
        self.steer_rad += change
        steer = self.steer_rad / max_steer_rad if max_steer_rad else 0.0
        if abs(wish.speed) < STANDING_MPS and abs(speed_mps) < 1.0:
            self.accel_mps2 = self.pedal = 0.0
            return VehicleControl(steer=steer, brake=1.0)
        way = math.copysign(1.0, wish.speed)
        most = wish.acceleration or MOST_ACCEL_MPS2
        delta = self.speed.step(way * (wish.speed - speed_mps), (s.speed_kp, s.speed_ki, s.speed_kd), dt_s)
        target = max(-(wish.acceleration or MOST_BRAKE_MPS2), min(most, self.accel_mps2 + delta))
        if wish.jerk > 0:
            target = max(self.accel_mps2 - wish.jerk * dt_s, min(self.accel_mps2 + wish.jerk * dt_s, target))
        self.accel_mps2 = target
        pedal = self.accel.step(target - way * accel_mps2, (s.accel_kp, s.accel_ki, s.accel_kd), dt_s)
        self.pedal = max(-1.0, min(1.0, self.pedal + pedal))
        return VehicleControl(max(0.0, self.pedal), steer, max(0.0, -self.pedal), reverse=way < 0)
