"""What a symbol's own history says in the view `alpha_v1`: one family of features per module, put together in `history.py`."""
