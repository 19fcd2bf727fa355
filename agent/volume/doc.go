// Package volume makes a pod's volumes under the agent's root directory and
// removes them again.
//
// Each volume type is one file with one entry in the list of kinds. What is on
// disk and mounted is the only state, so a killed agent goes on where it was:
// SetUp may be repeated at any time and brings the content up to date, TearDown
// removes whatever is left. Config maps, secrets and tokens come in through
// small interfaces; the API client is not known here.
//
// The layout is the kubelet's, because CSI drivers, log collectors and people
// look there: pods/<uid>/volumes/kubernetes.io~configmap/<volume>.
package volume
