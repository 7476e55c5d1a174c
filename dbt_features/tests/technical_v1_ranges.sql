{{ config(meta={"description": "Indicators stay inside the ranges that their definitions give them."}) }}
select symbol, session, rsi_14, bb_lower, bb_middle, bb_upper, high_low_range, volume_ratio
from {{ source('feature_store', 'technical_v1') }}
where rsi_14 not between 0 and 100
   or bb_lower > bb_middle + 1e-9 * abs(bb_middle)
   or bb_middle > bb_upper + 1e-9 * abs(bb_middle)
   or high_low_range < 0
   or volume_ratio < 0
