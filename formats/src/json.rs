//! What the JSON parser complains about, and where.

/// Returns the offset in `json` of what the parser complains about.
pub(crate) fn offset_in(json: &[u8], error: &serde_json::Error) -> usize {
    // At its end the parser points to the last byte that it has seen.
    if error.is_eof() {
        return json.len();
    }
    let line_start = json
        .split_inclusive(|&byte| byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    (line_start + error.column().saturating_sub(1)).min(json.len())
}

/// Returns the complaint without the line and column, which the parser counts its own way.
pub(crate) fn words_of(error: &serde_json::Error) -> String {
    let mut words = error.to_string();
    if let Some(end) = words.rfind(" at line ") {
        words.truncate(end);
    }
    words
}
