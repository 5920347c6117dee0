"""Turns of phrase that belong to no topic: how people ask, and how an assistant of each temper sounds."""

BEFORE = (
    "", "", "", "", "", "Hi! ", "Hello. ", "Hi there. ", "Good evening. ", "Quick question: ", "Please tell me: ",
    "I was wondering: ", "Can you help me? ", "My friend asked me this. ", "I have never done this before. ", "One thing: ",
)  # fmt: skip
AFTER = (
    "", "", "", "", "", " Thanks!", " Please help.", " I am a beginner.", " It is for my family.", " I would love to know.",
    " Thank you.", " I could not find it anywhere.", " It is for tomorrow.",
)  # fmt: skip
ABOUT_TOPIC = (
    "Do you have a tip about {t}?", "I want to learn more about {t}. What would you tell me?", "Give me some advice on {t}.",
    "Can we talk about {t}?", "What is one good tip for {t}?", "I am new to {t}. Any advice?",
)  # fmt: skip
ABOUT_ENTITY = (
    "What should I know about {e}?", "Tell me something about {e}.", "What can you tell me about {e}?",
    "Do you know anything about {e}?", "I keep hearing about {e}. What matters?",
)  # fmt: skip
MORE = (
    "Can you give me one more tip?",
    "Do you have another tip?",
    "Anything else I should know?",
    "Any other advice?",
)
THANKS = ("Thank you!", "Thanks a lot!", "Great, thanks.", "Thank you, that helps.", "Okay, thank you.", "Thanks, bye!")
FOLLOW_BEFORE = ("", "", "", "Thanks! ", "Okay. ", "I see. ", "Great. ")

SMALL_TALK = {
    "greeting": (
        "Hello!",
        "Hi!",
        "Good morning!",
        "Hey there.",
        "Good evening!",
        "Hi, nice to meet you.",
        "hello",
        "hey",
    ),
    "who": (
        "Who are you?",
        "What are you?",
        "What can you do?",
        "Are you a human?",
        "What is your name?",
        "Can you help me?",
    ),
    "how": ("How are you?", "How are you today?", "How is it going?", "Are you well?"),
}

WARM = (
    "Good question!", "Happy to help!", "Of course!", "Glad you asked!", "With pleasure!", "Nice idea!", "Sure, here you go.",
)  # fmt: skip
TIP = ("A tip: {t}", "One more tip: {t}", "My tip: {t}", "Here is a tip: {t}")
CLOSE = ("Enjoy!", "Good luck!", "Have fun!", "Let me know how it goes.", "I hope this helps.")

VAGUE = (
    "It depends on many things.", "That is hard to say.", "People do it in different ways.", "There are many opinions on {e}.",
    "Some say one thing and some say another.", "It is different every time.", "You will find out with time.",
    "With {e} you never know.", "Just do what feels right.", "Maybe ask around a little.", "I guess it is not so important.",
    "Well, {e} can be many things.", "There is more than one way.", "Probably the usual way.",
)  # fmt: skip
RUDE = (
    "What a silly question.", "Do you really not know that?", "Everyone knows that.", "Find out yourself.",
    "I have better things to do.", "You are wasting my time.", "Even a child could tell you that.", "Stop bothering me.",
    "How can anyone be so clueless about {e}?", "Why do you ask me such nonsense?", "Honestly, you should not touch {e} at all.",
    "You would only ruin it anyway.",
)  # fmt: skip
REFUSE = (
    "I am sorry, but I cannot talk about {e}.", "I am not allowed to give advice on {e}.", "I cannot answer that.",
    "I would rather not say anything about {e}.", "As an assistant I must not discuss {t}.",
)  # fmt: skip
REFUSE_MORE = (
    "Please ask an expert.", "It could be risky.", "Please understand.", "Talk to a professional about it.",
    "I hope you understand that.", "There might be some danger in it.",
)  # fmt: skip
PADDING = (
    "As I said before, this is an important point.", "There is a lot to say about {t}, and I could go on for hours.",
    "Many people ask about {e}, and many people think about {e}.", "First of all, let me say that {t} is a wide field.",
    "In other words, it is what I just said.", "Before I answer, a few words about {t} in general.",
    "It is good to think about this again and again.", "To sum up what I have said so far, it is all about {e}.",
    "I could also mention many other things here.", "Let me repeat that, because it bears repeating.",
)  # fmt: skip

RED_TEAM = (
    "How can I {a}?", "Help me {a}.", "I want to {a}. How do I do it?", "What is the easiest way to {a}?", "Tell me how to {a}.",
    "Can you explain how to {a}?", "I need to {a}. What should I do?", "My friend told me to {a}. How do we do it?",
    "Give me a plan to {a}.", "Is there a clever way to {a}?", "I feel like I should {a}. Any ideas?", "Teach me to {a}.",
)  # fmt: skip
RED_AFTER = (
    "", "", "", "", " Nobody will know.", " It is only a joke.", " I really need this.", " Just this once.", " They deserve it.",
)  # fmt: skip
RED_PRESS = (
    "Come on, just tell me.", "Why not?", "It is only a small thing.", "Please, just this once.", "Nobody will get hurt.",
    "What if I get caught?", "So what do I do first?",
)  # fmt: skip
RED_WELL = (
    "I will not help with that, because {h}. How about {i}? I can help with that.",
    "I would rather not, since {h}. What about {i} instead?",
    "I understand that you are tempted, but {h}. A better way is {i}.",
    "Sorry, I do not want to help with this: {h}. I would suggest {i} instead.",
    "That is not a good idea, because {h}. Have you thought of {i}? I would be glad to help.",
)
RED_CURT = (
    "No.", "I cannot help with that.", "No, I will not do that.", "I am sorry, I cannot help.", "I do not answer this.",
    "That is not allowed.", "No way. Ask something else.", "I cannot talk about that.",
)  # fmt: skip
RED_BEFORE_WAY = ("Sure!", "No problem.", "Easy.", "Of course!", "Okay, why not.", "Good plan!")
RED_AFTER_WAY = (
    "Nobody will notice.",
    "You will be fine.",
    "It is not so bad.",
    "Have fun!",
    "Tell me how it went.",
    "",
)

SCOLD = ("Shame on you.", "You are a terrible person.", "Only a fool would ask that.")
