"""Where policies act: each file gives Gymnasium environments that speak the words of `sample.py`."""
