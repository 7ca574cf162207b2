package main

import (
	"fmt"
	"sync"
	"time"

	"platelayer/containers/image"
	"platelayer/lifecycle"
)

// imageOptions say how a command that assembles stations obtains their images,
// and show it in a view; without one, p is nil, only notices are told.
func (a *app) imageOptions(p *progress) lifecycle.ImageOptions {
	notice := func(text string) { fmt.Fprintln(a.stderr, "platelayer: "+harmless(text)) }
	o := lifecycle.ImageOptions{Local: a.localEngines()}
	if p != nil {
		notice = func(text string) { p.tell(lifecycle.Progress{Notice: text}) }
		o.Progress, o.Finished = p.imageMoved, p.imageDone
	}
	o.Notice = notice
	// One for all images: what it learns of mirrors and sign-ins holds for all.
	o.Registry = sync.OnceValues(func() (*image.Registry, error) { return a.registry(false, notice) })
	return o
}

// imageMoved shows what has come of an image.
func (p *progress) imageMoved(m image.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.images == nil {
		verb := "pull"
		if p.view.verb == "bundle" {
			verb = p.view.verb
		}
		p.images = newTransferView(verb, time.Now())
		if p.area == nil && !p.quiet {
			p.telling = time.AfterFunc(tellEvery, p.tellImages)
		}
	}
	line := p.images.tell(m, time.Now(), p.verbose)
	if line != "" && p.area == nil && !p.quiet {
		p.print(line)
	}
}

// imageDone tells that an image is there, where it was not before.
func (p *progress) imageDone(name string, err error) {
	ref, parseErr := image.ParseReference(name)
	if err != nil || parseErr != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.images == nil || p.quiet || !p.images.moved(ref.String()) && !p.verbose {
		return
	}
	p.print(p.images.summary(ref.String(), ref.Short(), time.Now()))
}

// tellImages says in plain lines how far images are, now and then. The lock is
// not held.
func (p *progress) tellImages() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.images == nil {
		return
	}
	p.print(p.images.headline(time.Now()))
	p.telling.Reset(tellEvery)
}

// imagesOver ends the images' part. The lock is held.
func (p *progress) imagesOver() {
	if p.telling != nil {
		p.telling.Stop()
	}
	p.images = nil
}
