package activity_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiff-run/skiff/internal/activity"
)

func TestOnlyWorkLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a activity.Activity
		expect := func(want time.Duration) {
			t.Helper()
			if got := a.Lasts(); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		time.Sleep(time.Hour)
		expect(0)
		end := a.Begin()
		time.Sleep(time.Minute)
		expect(time.Minute)
		end()
		time.Sleep(time.Hour)
		expect(0)
		defer a.Begin()()
		time.Sleep(time.Second)
		expect(time.Second)
	})
}
