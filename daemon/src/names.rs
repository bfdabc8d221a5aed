//! What the service and its parts are called on the bus, and the signatures of what they exchange.

/// The name of the service.
pub const NAME: &str = "org.opdbus";
/// Its object.
pub const PATH: &str = "/org/opdbus";
/// What the objects of plugins lie below.
pub const PLUGINS_PATH: &str = "/org/opdbus/plugins";
