"""Driving in CARLA, on the real server or on ours: `env.py` is the environment, the others its parts.

server.py   a server at an address, started where none is      route.py   where to go, and what is on the way
score.py    what CARLA's Leaderboard makes of it               follow.py  from a path and a speed to the pedals
alarm.py    wakes a TrafficManager that sleeps through a tick
"""
