//! Scans a tree and says how long that took.
use diptych_localfs::{capture::*, scan::*};
use std::sync::Arc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let threads = a[2].parse().unwrap();
    let read = a.get(3).is_some();
    let t = std::time::Instant::now();
    let mut s = scan(
        a[1].as_ref(),
        ScanOptions { threads, ..Default::default() },
        Arc::new(diptych_format::monitor::Silent),
    )
    .unwrap();
    let (mut d, mut f, mut p, mut bytes) = (0u64, 0u64, 0u64, 0u64);
    let mut buf = Vec::with_capacity(1 << 20);
    while let Some(step) = s.next().unwrap() {
        match step {
            Step::Enter(_) => d += 1,
            Step::Entries(v) => {
                f += v.len() as u64;
                if read {
                    for x in &v {
                        if let Some(c) = capture(x, &diptych_format::monitor::Silent) {
                            if let Some(mut c) = c.content {
                                loop {
                                    match c.read(&mut buf, 1 << 20) {
                                        Part::Data(n) => {
                                            bytes += n as u64;
                                            buf.clear()
                                        }
                                        Part::Hole(_) => {}
                                        Part::End => break,
                                    }
                                }
                                c.finish(&diptych_format::monitor::Silent);
                            }
                        }
                    }
                }
            }
            Step::EndPiece => p += 1,
            Step::Leave => {}
        }
    }
    println!("{d} directories {f} others {p} cuts {bytes} bytes {:?}", t.elapsed());
}
