{{ config(meta={
    "description": "The view has a row for each row of technical_v1, and no other, in the newest 7 days.",
    "dagster": {"ref": {"name": "alpha_v1"}},
}) }}
select symbol, session, alpha.symbol is null as is_missing
from (select symbol, session from {{ newest_days(ref('alpha_v1'), 7) }}) as alpha
full join (select symbol, session from {{ newest_days(source('feature_store', 'technical_v1'), 7) }}) as technical using (symbol, session)
where alpha.symbol is null or technical.symbol is null
