broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}

graph "main" {
  text = <<-EOT
    a(x) OUT -> IN b(x)
    b OUT -> IN a
    c(x) OUT -> IN d(x)
  EOT
}

participant "a" {
  component = "x"
  outport "out" {
    address = "one"
  }
  inport "in" {
    address = "one"
  }
}

participant "b" {
  component = "x"
  outport "out" {
    address = "two"
  }
  inport "in" {
    address = "two"
  }
}

participant "c" {
  component = "x"
  outport "out" {
    address = "three"
    type    = "string"
  }
}

participant "d" {
  component = "x"
  inport "in" {
    address = "four"
    type    = "number"
  }
}

edge "b.out" "a.in" {
  window = 5
}
