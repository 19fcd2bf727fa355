// Package address checks IP addresses that clients write into Endpoints,
// EndpointSlices and Services. It is pure: strings in, field errors out.
package address

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// ValidateReachable refuses addresses that mean something else on every node:
// through them a proxy could be made to reach what a node keeps to itself.
func ValidateReachable(ip string, path *field.Path) field.ErrorList {
	parsed := netutils.ParseIPSloppy(ip)
	if parsed == nil {
		return field.ErrorList{field.Invalid(path, ip, "must be a valid IP address")}
	}
	var errs field.ErrorList
	for _, each := range []struct {
		is      bool
		message string
	}{
		{parsed.IsUnspecified(), fmt.Sprintf("may not be unspecified (%v)", ip)},
		{parsed.IsLoopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"},
		{parsed.IsLinkLocalUnicast(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)"},
		{parsed.IsLinkLocalMulticast(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"},
	} {
		if each.is {
			errs = append(errs, field.Invalid(path, ip, each.message))
		}
	}
	return errs
}
