from pretended import facts, gpu, linux

__all__ = ["facts", "gpu", "linux"]
