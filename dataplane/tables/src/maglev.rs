//! Maglev rings (Eisenbud et al., NSDI 2016 §3.4).
