//! Texts for what must be tried on some: those of the program's own help.

use std::collections::BTreeSet;

use crate::args;

/// The lines of the help of every command, each once.
pub(crate) fn lines() -> Vec<String> {
    let (mut lines, mut seen) = (Vec::new(), BTreeSet::new());
    let mut commands = vec![args::whole().term_width(0)];
    while let Some(mut command) = commands.pop() {
        let help = command.render_long_help().to_string();
        for line in help.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if seen.insert(line.to_owned()) {
                lines.push(line.to_owned());
            }
        }
        commands.extend(command.get_subcommands().map(|command| command.clone().term_width(0)));
    }
    lines
}
