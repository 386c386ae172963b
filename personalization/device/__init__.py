"""Run an exported personal model where there is no torch: numpy, onnxruntime and Pillow are all it needs."""

DEVICE_MANIFEST = "device.json"
