package nodeipam

import (
	"net/netip"
	"testing"
)

func TestFree(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pool Pool
		from string
		used []string
		want string
	}{
		"the first block of an empty pool":          {Pool{netip.MustParsePrefix("10.244.0.0/16"), 24}, "", nil, "10.244.0.0/24"},
		"the first gap":                             {Pool{netip.MustParsePrefix("10.244.0.0/16"), 24}, "", []string{"10.244.0.0/24", "10.244.2.0/24"}, "10.244.1.0/24"},
		"a larger range in the way is stepped over": {Pool{netip.MustParsePrefix("10.0.0.0/8"), 24}, "10.95.255.0", []string{"10.95.255.0/24", "10.96.0.0/16"}, "10.97.0.0/24"},
		"a smaller range takes its whole block":     {Pool{netip.MustParsePrefix("10.244.0.0/16"), 24}, "", []string{"10.244.0.77/32"}, "10.244.1.0/24"},
		"the search goes around the end":            {Pool{netip.MustParsePrefix("10.244.0.0/23"), 24}, "10.244.1.0", []string{"10.244.1.0/24"}, "10.244.0.0/24"},
		"a full pool":                               {Pool{netip.MustParsePrefix("10.244.0.0/23"), 24}, "", []string{"10.244.0.0/23"}, ""},
		"the end of the address space":              {Pool{netip.MustParsePrefix("255.255.255.0/24"), 25}, "", []string{"255.255.255.0/24"}, ""},
		"IPv6":                                      {Pool{netip.MustParsePrefix("fd00::/48"), 64}, "", []string{"fd00::/64"}, "fd00:0:0:1::/64"},
		"ranges of the other family do not matter":  {Pool{netip.MustParsePrefix("fd00::/48"), 64}, "", []string{"10.244.0.0/24"}, "fd00::/64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var used []netip.Prefix
			for _, text := range tc.used {
				used = append(used, netip.MustParsePrefix(text))
			}
			var from netip.Addr
			if tc.from != "" {
				from = netip.MustParseAddr(tc.from)
			}
			got, ok := free(tc.pool, from, used)
			if ok != (tc.want != "") || (ok && got.String() != tc.want) {
				t.Fatalf("got %s (%v), want %q", got, ok, tc.want)
			}
		})
	}
}
