package node

import (
	"fmt"
	"time"
)

// Busy is how long the loop that looks at the machine has been at its present
// round; 0 while it waits for the next.
func (m *Manager) Busy() time.Duration { return m.round.Lasts() }

// Describe says in a line how the node does, as this machine sees it.
func (m *Manager) Describe() string {
	trouble, looked := m.trouble.Load().(string)
	unreported, _ := m.unreported.Load().(string) // empty before the first round
	line := "node " + m.Name
	switch {
	case !looked && unreported != "":
		return fmt.Sprintf("%s is not registered: %s", line, unreported)
	case !looked:
		return line + " registers"
	case trouble != "":
		line += " is not Ready: " + trouble
	default:
		line += " is Ready"
	}
	if unreported != "" {
		line += "; not reported to the API: " + unreported
	}
	return line
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
