"""Trained models as files that other programs run: ONNX, torch.export, safetensors; each checked before it is kept.

Knows models and files, neither settings nor consoles.
"""
