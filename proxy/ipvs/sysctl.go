package ipvs

import (
	"fmt"
	"os"
	"strings"
)

// setting is a file below /proc/sys/net and its value.
type setting struct{ file, value string }

// sysctls are the kernel's settings that IPVS needs here.
func (b *Backend) sysctls() []setting {
	all := []setting{
		// What IPVS sends can be masqueraded.
		{"ipv4/vs/conntrack", "1"},
		// A client whose destination is gone gets another with its next packet, and
		// one that keeps to a destination with weight 0 as well.
		{"ipv4/vs/expire_nodest_conn", "1"},
		{"ipv4/vs/expire_quiescent_template", "1"},
	}
	if b.options.StrictARP {
		all = append(all, setting{"ipv4/conf/all/arp_ignore", "1"}, setting{"ipv4/conf/all/arp_announce", "2"})
	}
	return all
}

func writeSysctls(settings []setting) error {
	for _, s := range settings {
		if is, err := s.read(); err == nil && is == s.value {
			continue
		}
		if err := os.WriteFile("/proc/sys/net/"+s.file, []byte(s.value), 0o600); err != nil {
			return fmt.Errorf("set net/%s to %s: %w", s.file, s.value, err)
		}
	}
	return nil
}

func (s setting) read() (string, error) {
	content, err := os.ReadFile("/proc/sys/net/" + s.file)
	return strings.TrimSpace(string(content)), err
}
