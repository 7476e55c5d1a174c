"""Every rule by its name, in the order in which people read them, with what it says is wrong."""

from __future__ import annotations

FACTS = ("ohlc_order", "non_positive_price", "duplicate_bar", "closed_session", "impossible_action")
"""Rules that no clean bar breaks: what breaks them is critical at whatever rate the desk chose."""
RULES = {
    "ohlc_order": "High is not the highest of the four prices, or low not the lowest.",
    "non_positive_price": "A price is missing, zero or negative.",
    "duplicate_bar": "Several bars of one symbol stand in one session.",
    "closed_session": "A bar stands on a day on which the exchange was closed.",
    "missing_session": "A listed symbol has no bar in a session.",
    "partial_session": "Many symbols of the session before have no bar: the delivery is partial.",
    "repeated_session": "Many symbols share their bar with a neighbouring session: the delivery is stale, or ran ahead.",
    "identical_series": "Two symbols carry one series of bars.",
    "ticker_reuse": "A bar lies outside its instrument's life, or another company seems to trade under the symbol.",
    "unit_error": "A price stands a power of ten away from where the symbol is quoted.",
    "unadjusted_split": "The price moves as by a split that nobody told.",
    "split_without_move": "A split was told and the price does not follow it: the prices are adjusted already.",
    "split_in_history": "A restated history holds a split by halves.",
    "impossible_action": "A corporate action cannot be right.",
    "dividend_too_large": "A dividend is far larger than the fall in price it came with.",
    "dividend_too_small": "A dividend is far smaller than the fall in price it came with.",
    "dividend_repeated": "A dividend is told twice within days.",
    "suspicious_close": "The close does not go with its neighbours in time and in the cross-section (learned score).",
    "jump_without_cause": "The close jumps, with no action and no volume that goes with news.",
    "spike_and_revert": "The next session takes the whole move back.",
    "close_off_next_open": "The next open does not go on from the close.",
    "stale_close": "The close, or the whole bar, repeats for too many sessions.",
    "zero_volume_move": "The close moves while no share trades.",
    "volume_spike": "The volume is far above the symbol's usual one and the market's.",
    "seasonal_volume": "The volume is far from what the seasons of earlier ones foresee.",
}
FILE_RULES = {
    "dividend_adjustment": "The vendor's adjusted closes and its dividends contradict each other.",
    "capital_gain_twice": "A fund's capital gain is taken off its adjusted closes twice.",
}
"""Rules for a single file, whose adjusted closes are all of one day's basis."""
