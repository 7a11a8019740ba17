"""What the profile of a user may have otherwise, although rows and their number depend on it."""

from collections.abc import Mapping

# Of every query.
WHATEVER_THE_PROFILE: Mapping[str, int | str] = {
    # Days of sorting keys are the server's. By those of a profile's own zone, rows would be put and looked
    # for where they are not, and no count would tell.
    "session_timezone": "",
    # With `break`, results would end early, where an error has a window read in parts; so would the sets
    # and groups in the middle of a query.
    **{
        f"{what}_overflow_mode": "throw"
        for what in ("read", "result", "timeout", "group_by", "sort", "distinct", "set", "join", "transfer")
    },
    **dict.fromkeys(("read_overflow_mode_leaf", "timeout_overflow_mode_leaf"), "throw"),
    # What hides rows, from counts as well.
    "additional_table_filters": "{}",
    "additional_result_filter": "",
    "limit": 0,
    "offset": 0,
    # Without it, what a lightweight DELETE has removed is there again.
    "apply_deleted_mask": 1,
    # Old versions and deletions say that a window has changed.
    "final": 0,
    # Answers of a minute ago.
    "use_query_cache": 0,
    # Two lines more in a CSV file, the least and the largest values.
    "extremes": 0,
}

# Of queries that answer in JSON: a row is a line, numbers are numbers and maps are objects.
JSON_LINES: Mapping[str, int | str] = {
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_64bit_floats": 0,
    "output_format_json_quote_decimals": 0,
    "output_format_json_map_as_array_of_tuples": 0,
    "output_format_json_array_of_rows": 0,
    # Otherwise an error in mid-stream looks like a row.
    "http_write_exception_in_output_format": 0,
}
