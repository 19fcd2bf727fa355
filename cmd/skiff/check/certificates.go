package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/skiff-run/skiff/internal/pki"
)

// renewalDue is how long before its end a certificate should have been renewed.
const renewalDue = 30 * 24 * time.Hour

func checkCertificates(_ context.Context, e *examination) {
	if !e.rootOnly("certificates") {
		return
	}
	found, err := pki.Check(e.PKI())
	switch {
	case errors.Is(err, fs.ErrNotExist) && !e.installed:
		e.ok("certificates", "none yet; %s makes them", e.command())
		return
	case err != nil:
		e.fail("certificates", err.Error(), e.command())
		return
	}
	next := time.Time{}
	nextName := ""
	bad := false
	for _, c := range found {
		switch {
		case c.Problem != "":
			bad = true
			e.fail(c.Name, fmt.Sprintf("%s %s", c.Path, c.Problem), "skiff pki check")
		case c.NotAfter.Sub(e.now()) < renewalDue:
			bad = true
			e.warn(c.Name, fmt.Sprintf("%s ends on %s and was not renewed", c.Path, c.NotAfter.Format(time.DateOnly)), "skiff pki renew "+c.Name)
		}
		if next.IsZero() || c.NotAfter.Before(next) {
			next, nextName = c.NotAfter, c.Name
		}
	}
	if !bad && len(found) > 0 {
		e.ok("certificates", "%d are in order; %s ends first, on %s", len(found), nextName, next.Format(time.DateOnly))
	}
}
