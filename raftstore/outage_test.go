package raftstore

import "testing"

func TestWhoStandsForElection(t *testing.T) {
	t.Parallel()
	silent := func(term, index uint64) situation { return situation{silent: true, lastTerm: term, lastIndex: index} }
	hears := situation{lastTerm: 3, lastIndex: 10}
	cases := []struct {
		name   string
		own    situation
		others map[string]situation
		stands bool
	}{
		{"the longest log of a silent majority", silent(3, 10), map[string]situation{"c": silent(3, 9)}, true},
		{"not a shorter log", silent(3, 9), map[string]situation{"c": silent(3, 10)}, false},
		{"a later term is longer than more entries", silent(3, 9), map[string]situation{"c": silent(2, 90)}, true},
		{"not a log of an earlier term", silent(2, 90), map[string]situation{"c": silent(3, 9)}, false},
		{"of equals the first by name", silent(3, 10), map[string]situation{"c": silent(3, 10)}, true},
		{"of equals not the second", silent(3, 10), map[string]situation{"a": silent(3, 10)}, false},
		{"nobody alone", silent(3, 10), nil, false},
		{"not while another hears the leader", silent(3, 10), map[string]situation{"c": hears}, false},
		{"not while another leads", silent(3, 10), map[string]situation{"a": {leads: true}, "c": silent(3, 9)}, false},
		{"not who hears the leader itself", hears, map[string]situation{"c": silent(3, 9)}, false},
		{"not the leader", situation{leads: true, lastTerm: 3, lastIndex: 10}, map[string]situation{"c": silent(3, 9)}, false},
	}
	for _, c := range cases {
		if got := shallStand("b", c.own, c.others, 2); got != c.stands {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
