"""Networks as plain modules: each file needs torch alone, but for those that wrap timm."""
