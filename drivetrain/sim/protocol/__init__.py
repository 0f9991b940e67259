"""CARLA's two protocols: msgpack-rpc for questions, and a stream for each sensor. What differs by release is in `versions.py`."""
