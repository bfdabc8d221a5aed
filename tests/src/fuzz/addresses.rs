//! What must hold of addresses and lists on the command line.

use op_dbus_formats::metrics_address::{MetricsAddress, MetricsAddressError};
use op_dbus_formats::numa_list::{self as numa_list_format, NumaList};

/// What is read is read again as it is written, and what others reach is not taken for local.
pub fn metrics_address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<MetricsAddress>() {
        Ok(address) => {
            assert_eq!(address.to_string().parse(), Ok(address.clone()));
            match address {
                MetricsAddress::Socket(path) => assert!(path.is_absolute()),
                MetricsAddress::Local(at) => assert!(at.ip().to_canonical().is_loopback()),
                MetricsAddress::Public(_) => assert!(text.starts_with("public:")),
            }
        }
        Err(MetricsAddressError::NotLocal(at)) => {
            assert!(!at.ip().is_loopback());
            assert_eq!(format!("public:{at}").parse(), Ok(MetricsAddress::Public(at)));
        }
        Err(MetricsAddressError::Unknown) => {}
    }
}

/// What is read is read again as it is written, and numbers that it selects are allowed.
pub fn numa_list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let allowed = [0, 1, 2, 5, 8191].into();
    match NumaList::parse(text) {
        Ok(list) => {
            assert_eq!(NumaList::parse(&list.to_string()).as_ref(), Ok(&list));
            match list.select(&allowed) {
                Ok(selected) => assert!(selected.is_subset(&allowed)),
                Err(number) => assert!(number <= numa_list_format::NUMBER_MAX),
            }
        }
        Err(error) => assert!(error.line > 0 && error.column > 0 && error.problem.len() < 2000),
    }
}
