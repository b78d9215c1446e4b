"""The command ``recbole-dsl serve``: an artifact behind HTTP, without RecBole or PyTorch where it is a product."""
