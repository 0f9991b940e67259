"""A small world that speaks CARLA's protocol, so that the official `carla` client runs where no CARLA can.

It stands alone: no torch, and nothing imported from the rest of the package.
"""
