//! Who may change something: polkit on the system's bus, the owner of the service elsewhere.
//!
//! polkit is asked about the unique name of the sender and nothing else: a process can end, and its
//! number be given to another, between a question and its answer. Whatever is no clear yes is a no:
//! polkit that is not there, errs or does not answer, and a sender who has gone meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

use crate::caller::Caller;

/// How long polkit may take that asks nobody.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take where it asks a person for a password.
const PATIENCE_WITH_PEOPLE: Duration = Duration::from_secs(180);

/// What can be permitted. Each is an action of polkit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Changing the cache of embeddings.
    Cache,
    /// Writing state documents, declared state among them.
    State,
    /// Taking and deleting snapshots.
    Snapshot,
    /// Calling a method that its plugin calls safe.
    Call,
    /// Calling one that it does not call safe.
    CallConfirmed,
    /// Reading plugins and configuration anew.
    Reload,
}

impl Action {
    #[cfg(test)]
    const ALL: [Self; 6] =
        [Self::Cache, Self::State, Self::Snapshot, Self::Call, Self::CallConfirmed, Self::Reload];

    /// Its name for polkit.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Cache => "org.opdbus.cache",
            Self::State => "org.opdbus.state",
            Self::Snapshot => "org.opdbus.snapshot",
            Self::Call => "org.opdbus.call",
            Self::CallConfirmed => "org.opdbus.call-confirmed",
            Self::Reload => "org.opdbus.reload",
        }
    }
}

/// Whether something may be done, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Allowed,
    Denied(String),
}

/// Who decides.
pub(crate) enum Authority {
    /// polkit, whose answers are about members of the system's bus.
    Polkit,
    /// Whoever the service belongs to, who could change its files as well: nobody else, root
    /// included, has anything to say on a bus of theirs.
    Owner { uid: u32 },
}

impl Authority {
    pub(crate) async fn decide(
        &self,
        caller: &Caller,
        action: Action,
        header: &Header<'_>,
        connection: &Connection,
    ) -> Decision {
        match self {
            Self::Owner { uid } if *uid == caller.uid => Decision::Allowed,
            Self::Owner { .. } => {
                Decision::Denied("the service belongs to another user".to_owned())
            }
            Self::Polkit => ask_polkit(action, header, connection).await,
        }
    }
}

async fn ask_polkit(action: Action, header: &Header<'_>, connection: &Connection) -> Decision {
    let is_interactive = header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
    let patience = if is_interactive { PATIENCE_WITH_PEOPLE } else { PATIENCE };
    let Some(sender) = header.sender() else {
        return Decision::Denied("the call has no sender".to_owned());
    };
    let asked = async {
        let subject = Subject::new_for_message_header(header).map_err(|error| error.to_string())?;
        let flags = match is_interactive {
            true => CheckAuthorizationFlags::ALLOW_USER_INTERACTION,
            false => CheckAuthorizationFlags::empty(),
        };
        let details = HashMap::new();
        let asked = async {
            let polkit = AuthorityProxy::new(connection).await?;
            polkit.check_authorization(&subject, action.id(), &details, flags, "").await
        };
        let answer = asked.await.map_err(|error| format!("polkit does not answer: {error}"))?;
        if !answer.is_authorized {
            return Err(match answer.is_challenge {
                true => "polkit wants a password, and there is nobody to ask for it".to_owned(),
                false => "polkit does not allow it".to_owned(),
            });
        }
        // Whoever has gone while a person was asked does not get what that person thought they ask for.
        let bus = DBusProxy::new(connection).await.map_err(|error| error.to_string())?;
        match bus.name_has_owner(sender.to_owned().into()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("the caller has gone".to_owned()),
            Err(error) => Err(format!("the bus does not answer: {error}")),
        }
    };
    match tokio::time::timeout(patience, asked).await {
        Ok(Ok(())) => Decision::Allowed,
        Ok(Err(reason)) => Decision::Denied(reason),
        Err(_) => Decision::Denied(format!("polkit did not answer in {} s", patience.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_described_to_polkit() {
        let policy = include_str!("../system/org.opdbus.policy");
        for action in Action::ALL {
            assert!(policy.contains(&format!("<action id=\"{}\">", action.id())), "{action:?}");
        }
        assert_eq!(policy.matches("<action ").count(), Action::ALL.len());
        // Without it polkit answers nobody but root.
        let owner =
            "<annotate key=\"org.freedesktop.policykit.owner\">unix-user:op-dbus</annotate>";
        assert_eq!(policy.matches(owner).count(), Action::ALL.len());
    }
}
