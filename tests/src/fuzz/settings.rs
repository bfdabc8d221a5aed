//! What must hold of files of settings.

use op_dbus_formats::settings::{self as format, Form, Known, Setting};

use super::check_place;

/// What is parsed renders to a file that is parsed to the same settings, but for where they stand.
pub fn settings(data: &[u8]) {
    let known =
        [(None, "a", Form::Single), (Some("t"), "b", Form::List), (Some("t"), "c", Form::Table)];
    let known = known.map(|(table, key, form)| Known { table, key, form });
    match format::parse(data, &known) {
        Ok(settings) => {
            let plain = |mut settings: Vec<Setting>| {
                settings.iter_mut().for_each(|setting| (setting.line, setting.column) = (1, 1));
                settings
            };
            let text = format::render(settings.iter().map(|setting| (setting, None)));
            let again = format::parse(text.as_bytes(), &known);
            assert_eq!(again.map(plain), Ok(plain(settings)), "{text}");
        }
        Err(error) => check_place(data, &error),
    }
}
