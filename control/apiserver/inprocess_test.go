package apiserver

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestAHandlerThatPanicsBreaksOffItsAnswerOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		handle http.HandlerFunc
		begins string // what is read before the end
	}{
		{"before its header", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ""},
		{"within its body", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half an ans")
			panic(http.ErrAbortHandler)
		}, "half an ans"},
		{"by mistake", func(http.ResponseWriter, *http.Request) { panic("a mistake") }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			transport := &handlerTransport{handler: func() http.Handler { return c.handle }, who: apiserverUser()}
			response, err := (&http.Client{Transport: transport}).Get("https://in-process/api")
			text := ""
			if err == nil {
				var data []byte
				data, err = io.ReadAll(response.Body)
				text = string(data)
				_ = response.Body.Close()
			}
			if text != c.begins || err == nil || !strings.Contains(err.Error(), "broke off") {
				t.Errorf("read %q and got %v, want %q and an error", text, err, c.begins)
			}
		})
	}
}
