//! The options of machines with several NUMA nodes.

use clap::Args;
use clap::builder::BoolishValueParser;
use op_dbus_engine::{NumaList, NumaPolicy};

/// Where hot memory lies and threads run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Machines with several NUMA nodes")]
pub(crate) struct Numa {
    /// Whether what follows counts; true if any of it is told
    #[arg(
        long,
        global = true,
        value_name = "true|false",
        env = "OPDBUS_NUMA_ENABLE",
        hide_env_values = true,
        hide_short_help = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub(crate) numa_enable: Option<bool>,
    /// Where hot memory lies: bind (on the nodes alone), preferred (as long as they have memory),
    /// interleave (on them in turn), replicate (graphs once on each) or off [default: bind]
    #[arg(
        long,
        global = true,
        value_name = "POLICY",
        env = "OPDBUS_NUMA_POLICY",
        hide_env_values = true,
        hide_short_help = true,
        value_parser = policy
    )]
    pub(crate) numa_policy: Option<NumaPolicy>,
    /// The nodes, as numactl takes them: 0, 0-1, all, !1 or +0 [default: 0; all to interleave or
    /// replicate]
    #[arg(
        long,
        global = true,
        value_name = "LIST",
        env = "OPDBUS_NUMA_NODE",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub(crate) numa_node: Option<NumaList>,
    /// The CPUs that threads run on, such as 0-3,8 [default: those of the nodes]
    #[arg(
        long,
        global = true,
        value_name = "LIST",
        env = "OPDBUS_NUMA_CPU_LIST",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub(crate) numa_cpu_list: Option<NumaList>,
}

fn policy(text: &str) -> Result<NumaPolicy, String> {
    text.parse().map_err(|_| {
        let names = NumaPolicy::ALL.map(NumaPolicy::name);
        format!("it must be one of {}", names.join(", "))
    })
}
