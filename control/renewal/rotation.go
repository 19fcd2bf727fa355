package renewal

import (
	"slices"
	"time"

	"github.com/skiff-run/skiff/internal/pki"
)

// step is what replacing an authority needs next.
type step string

const (
	stay      step = "stay"
	introduce step = "introduce the successor"
	adopt     step = "sign with the successor"
	retire    step = "drop the previous authority"
)

// decide returns the step that is due and safe now. unready are the members
// that do not trust the successor yet.
func decide(r pki.Rotation, now time.Time, unready []string) step {
	switch r.Stage {
	case pki.Settled:
		if r.SuccessorDue() {
			return introduce
		}
	case pki.Trusting:
		// The end of the present authority waits for nobody.
		if now.Sub(r.Since) >= pki.Settling && (len(unready) == 0 || r.Signing.NotAfter.Sub(now) < pki.Settling) {
			return adopt
		}
	case pki.Replacing:
		if now.Sub(r.Since) >= pki.Fading || now.After(r.Previous.NotAfter) {
			return retire
		}
	}
	return stay
}

// advance takes the step of replacing an authority that is due.
func (k *Keeper) advance(name string, records map[string]Record, members []string) error {
	rotation, err := pki.RotationOf(k.Dir, name)
	if err != nil {
		return err
	}
	var unready []string
	if rotation.Next != nil {
		for _, member := range members {
			if !slices.Contains(records[member].Trusts[name], pki.Fingerprint(rotation.Next)) {
				unready = append(unready, member)
			}
		}
	}
	next := decide(rotation, time.Now(), unready)
	switch next {
	case introduce:
		err = pki.Introduce(k.Dir, name)
	case adopt:
		err = pki.Adopt(k.Dir, name)
	case retire:
		err = pki.Retire(k.Dir, name)
	default:
		return nil
	}
	if err == nil {
		k.Logger.Info("replacing an authority", "authority", name, "step", string(next), "unready", unready)
	}
	return err
}
