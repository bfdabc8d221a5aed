//! What the service and its objects are called on the bus.

/// The name of the service.
pub const NAME: &str = "org.opdbus";
/// Its object.
pub const PATH: &str = "/org/opdbus";
/// What the objects of plugins lie below.
pub const PLUGINS_PATH: &str = "/org/opdbus/plugins";
