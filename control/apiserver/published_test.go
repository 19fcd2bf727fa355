package apiserver

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPublishedIsBuiltOnDemandAndDroppedWhenIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		builds := 0
		p := &published{name: "test", logger: slog.New(slog.DiscardHandler), build: func() (http.Handler, error) {
			builds++
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }), nil
		}}
		ask := func() {
			w := httptest.NewRecorder()
			p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			if w.Code != http.StatusTeapot {
				t.Errorf("got %d", w.Code)
			}
		}
		var many sync.WaitGroup
		for range 10 {
			many.Go(ask)
		}
		many.Wait()
		if builds != 1 {
			t.Errorf("built %d times for ten requests at once", builds)
		}
		// Asked again before the time is over, it stays.
		for range 3 {
			time.Sleep(publishedIdle - time.Second)
			ask()
		}
		if builds != 1 {
			t.Errorf("built %d times though it was wanted all the time", builds)
		}
		time.Sleep(publishedIdle + time.Second)
		if p.built != nil {
			t.Error("an idle document is kept")
		}
		ask()
		time.Sleep(publishedIdle + time.Second)
		if builds != 2 || p.built != nil {
			t.Errorf("built %d times, kept %v; want 2 times, and dropped again", builds, p.built != nil)
		}
	})
}

func TestPublishedTriesAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	failure := errors.New("not now")
	p := &published{name: "test", logger: slog.New(slog.DiscardHandler), build: func() (http.Handler, error) {
		if failure != nil {
			return nil, failure
		}
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil
	}}
	defer p.drop()
	for _, want := range []int{http.StatusInternalServerError, http.StatusOK} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code != want {
			t.Errorf("got %d, want %d", w.Code, want)
		}
		failure = nil
	}
}
