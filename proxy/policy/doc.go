// Package policy enforces NetworkPolicies on one machine.
//
// In flow: NetworkPolicies, and while there is one, Pods and Namespaces. Compile
// turns them, as a pure function, into the Ruleset of this node: chains for the
// policies that select pods here, sets for the addresses and ports they name.
// Out flow: one nftables table, inet skiff-policy, changed by the difference
// between two Rulesets in one transaction. It knows nothing of Services: packets
// are judged after service addresses have been translated, whichever backend
// does that.
//
// Connections are judged by what connection tracking knows of them, in both
// directions and with every packet: who began them (the original source) and
// who answers (the reply's source), so that a change of policy holds for
// established connections too.
//
// A pod is never open before its policy is in place: while any policy exists,
// addresses of this node's ranges that are not known to be a pod's are let
// through to nobody but the node itself. What is programmed stays when the
// daemon ends.
package policy
