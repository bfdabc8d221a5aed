//! What should have happened, held to what did.

use std::collections::BTreeMap;

use crate::cases::{Case, DENIED, Right};
use crate::polkit::{Answer, Asked};
use crate::world::{Decides, Who};

/// One thing that somebody asked for.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) who: Who,
    pub(crate) decides: Decides,
    /// What polkit says about them.
    pub(crate) answer: Answer,
    /// The unique name of whoever asked.
    pub(crate) sender: String,
    pub(crate) seen: Seen,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The name of the error, if it was refused.
    pub(crate) refused: Option<String>,
    /// Whether what was asked for was done, or what nobody may read was read.
    pub(crate) has_effect: bool,
    /// What the stand-in for polkit was asked about the sender; none where there is no stand-in.
    pub(crate) asked: Option<Vec<Asked>>,
    /// What the journal has of the sender since it asked.
    pub(crate) intents_count: usize,
    pub(crate) outcomes_count: usize,
    pub(crate) denials_count: usize,
    /// What it has of them as denied reading, ever.
    pub(crate) reading_denied_count: usize,
    /// Whether all of that is said of the right user.
    pub(crate) is_of_user: bool,
}

impl Row {
    /// Whether it may be done.
    pub(crate) fn is_allowed(&self) -> bool {
        match self.case.right {
            Right::Read => self.who.may_read(),
            Right::ReadProtected => self.who.is_owner(),
            Right::Change(_) => self.who.may_read() && self.decider_says_yes(),
            Right::Nobody(_) => false,
        }
    }

    fn decider_says_yes(&self) -> bool {
        match self.decides {
            // Unless a rule says otherwise, polkit lets root do everything; the rule is of the test.
            Decides::Polkit => matches!(self.who, Who::Root | Who::Admin),
            Decides::StandIn => self.answer == Answer::Yes,
            Decides::Owner => self.who == Who::Own,
        }
    }

    /// The error of those who may not.
    fn refusal(&self) -> &'static str {
        match self.case.right {
            Right::Nobody(error) if self.who.may_read() => error,
            _ => DENIED,
        }
    }

    fn name(&self) -> String {
        format!("{:?} {:?} polkit says {:?}: {}", self.decides, self.who, self.answer, self.case)
    }

    /// What is wrong, if anything.
    fn complaint(&self) -> Option<String> {
        let problems = [self.wrong_answer(), self.wrong_question(), self.wrong_journal()];
        let problems: Vec<String> = problems.into_iter().flatten().collect();
        (!problems.is_empty()).then(|| format!("{}: {}", self.name(), problems.join("; ")))
    }

    fn wrong_answer(&self) -> Option<String> {
        let is_change = matches!(self.case.right, Right::Change(_));
        match (self.is_allowed(), &self.seen.refused) {
            (true, Some(error)) => Some(format!("refused as {error}, and is allowed")),
            (true, None) if is_change && !self.seen.has_effect => {
                Some("allowed, and nothing was done".to_owned())
            }
            (true, None) => None,
            (false, None) => Some("WRONGLY ALLOWED".to_owned()),
            (false, Some(_)) if self.seen.has_effect => {
                Some("WRONGLY DONE, though refused".to_owned())
            }
            (false, Some(error)) if error != self.refusal() => Some(format!("refused as {error}")),
            (false, Some(_)) => None,
        }
        .or_else(|| {
            let leaks = !is_change && self.seen.has_effect && !self.who.is_owner();
            leaks.then(|| "WRONGLY READ: what not every reader may read".to_owned())
        })
    }

    fn wrong_question(&self) -> Option<String> {
        let asked = self.seen.asked.as_ref()?;
        let action = match self.case.right {
            Right::Change(action) if self.who.may_read() && self.answer != Answer::Absent => action,
            _ if asked.is_empty() => return None,
            _ => return Some(format!("polkit was asked {asked:?}")),
        };
        let [only] = asked.as_slice() else { return Some(format!("polkit was asked {asked:?}")) };
        let is_right = only.is_about(&self.sender) && only.action == action;
        (!is_right).then(|| format!("polkit was asked {only:?}"))
    }

    fn wrong_journal(&self) -> Option<String> {
        let Seen { intents_count, outcomes_count, denials_count, .. } = self.seen;
        let counts = (intents_count, outcomes_count, denials_count);
        let has_journaled = match (self.case.right, self.is_allowed()) {
            // Each connection that may not read, once.
            _ if !self.who.may_read() => self.seen.reading_denied_count > 0 && intents_count == 0,
            // A call has its outcome when its caller says how it ended.
            (Right::Change(_), true) if self.case.member == "PrepareCall" => counts == (1, 0, 0),
            (Right::Change(_), true) => counts == (1, 1, 0),
            (Right::Change(_), false) => counts == (0, 0, 1),
            (Right::Nobody(error), _) if error.ends_with("Denied") => counts == (0, 0, 1),
            (Right::Nobody(_) | Right::Read, _) | (Right::ReadProtected, true) => {
                intents_count == 0
            }
            (Right::ReadProtected, false) => self.seen.reading_denied_count > 0,
        };
        if !has_journaled {
            return Some(format!("the journal has {:?}", self.seen));
        }
        (!self.seen.is_of_user).then(|| "the journal names another user".to_owned())
    }
}

/// All that is wrong.
pub(crate) fn complaints(rows: &[Row]) -> Vec<String> {
    rows.iter().filter_map(Row::complaint).collect()
}

/// Prints how many were allowed, denied and wrong, by who asked.
pub(crate) fn print_table(rows: &[Row]) {
    let mut counts: BTreeMap<Who, [usize; 3]> = BTreeMap::new();
    for row in rows {
        let column = match (row.complaint(), row.is_allowed()) {
            (Some(_), _) => 2,
            (None, true) => 0,
            (None, false) => 1,
        };
        counts.entry(row.who).or_default()[column] += 1;
    }
    println!("{:<10} {:>8} {:>8} {:>8}", "who", "allowed", "denied", "wrong");
    let mut all = [0; 3];
    for (who, of_who) in &counts {
        let name = format!("{who:?}");
        println!("{name:<10} {:>8} {:>8} {:>8}", of_who[0], of_who[1], of_who[2]);
        all.iter_mut().zip(of_who).for_each(|(sum, count)| *sum += count);
    }
    println!("{:<10} {:>8} {:>8} {:>8}", "all", all[0], all[1], all[2]);
}

/// Turns one refusal of a change into an answer, as a service would that fails open: the judge must
/// name that one, and no other.
pub(crate) fn assert_sees_a_planted_allow(rows: &[Row]) {
    let is_refused = |row: &&Row| {
        row.who.may_read() && matches!(row.case.right, Right::Change(_)) && !row.is_allowed()
    };
    let places: Vec<usize> = (0..rows.len()).filter(|place| is_refused(&&rows[*place])).collect();
    assert!(!places.is_empty(), "something is refused");
    // The first, the last, and one between them.
    for place in [places[0], places[places.len() / 2], places[places.len() - 1]] {
        let mut planted = rows.to_vec();
        planted[place].seen.refused = None;
        let found = complaints(&planted);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&planted[place].name()), "{found:?}");
        assert!(found[0].contains("WRONGLY ALLOWED"), "{found:?}");
        // Refused in words, and done all the same.
        let mut planted = rows.to_vec();
        planted[place].seen.has_effect = true;
        let found = complaints(&planted);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("WRONGLY DONE"), "{found:?}");
    }
}

#[test]
fn the_judge_finds_a_wrong_allow() {
    let right = crate::cases::cases(Decides::StandIn);
    let right = right.iter().find(|case| case.member == "Put" && case.interface == "State1");
    let sender = ":1.7".to_owned();
    let asked = Asked {
        subject_kind: "system-bus-name".to_owned(),
        subject: vec![("name".to_owned(), sender.clone())],
        action: "org.opdbus.state".to_owned(),
        flags: 0,
    };
    let seen = Seen {
        refused: Some(DENIED.to_owned()),
        asked: Some(vec![asked]),
        denials_count: 1,
        is_of_user: true,
        ..Seen::default()
    };
    let answers = [Answer::No, Answer::Error, Answer::Challenge];
    let rows = answers.map(|answer| Row {
        case: *right.unwrap(),
        who: Who::Admin,
        decides: Decides::StandIn,
        answer,
        sender: sender.clone(),
        seen: seen.clone(),
    });
    assert_eq!(complaints(&rows), Vec::<String>::new());
    assert_sees_a_planted_allow(&rows);
    // A question about a process, which may be another by the time of the answer.
    let mut by_process = rows.clone();
    by_process[1].seen.asked.as_mut().unwrap()[0].subject_kind = "unix-process".to_owned();
    assert_eq!(complaints(&by_process).len(), 1);
    let mut unjournaled = rows;
    unjournaled[2].seen.denials_count = 0;
    assert_eq!(complaints(&unjournaled).len(), 1);
}
