// Package ipvs programs a table of service ports into the kernel's load
// balancer IPVS: a virtual service for each address and port, a destination for
// each endpoint.
//
// IPVS sees packets only where they are delivered to this machine, so every
// service address is an address of this machine, on the device kube-ipvs0. What
// IPVS does not do, rules of iptables do with ipsets: masquerading, source
// ranges, refusing and dropping. The rules are the same whatever the services
// (but for those of the policy Local); the sets change.
//
// A destination that is not wanted any more keeps its connections: it gets
// weight 0, and goes when no connection is left, with its virtual service and
// address when those are not wanted either.
//
// The set KUBE-IPVS-SERVICES names every virtual service of ours, before it is
// made and until it is gone, so that those of others are told apart, whatever
// becomes of this process.
package ipvs
