"""CARLA's two protocols: msgpack-rpc for questions, a stream for each sensor. `versions.py` says what differs by release."""
