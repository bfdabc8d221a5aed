fn main() {
    let keys: u32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let b = op_dbus_benches::HitBenchmark { keys_count: keys, lookups_count: 300_000, threads_counts: vec![1, 2] };
    for r in b.run(dir.path(), &mut |s| eprintln!("{s}")).unwrap() {
        println!("{:18} {:8} t{} p50 {:6.0} p99 {:6.0} cpu {:6.0} kops {:8.0}", r.engine, r.keys, r.threads, r.p50_ns, r.p99_ns, r.cpu_ns, r.lookups_per_second / 1e3);
    }
}
