"""Plain nn.Modules: the networks that neither torchvision nor timm has as the papers have them."""
