// Package networking holds the networking.k8s.io API group: NetworkPolicies,
// which the proxies enforce, and Ingresses with their classes, which are for
// whatever ingress controller a cluster runs.
//
// ServiceCIDRs and IPAddresses are not served: service addresses come from the
// one range of the configuration, and objects that change nothing would lie.
package networking
